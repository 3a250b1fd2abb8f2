"""One module for each command, and the flags of the scripts: they parse, call and print.

Arithmetic, files and pictures belong to the packages below.
"""
