"""`python -m pit_keras` is `pit-keras`."""

from pit_keras.cli import main

main()
