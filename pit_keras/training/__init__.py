"""The trainer and its step, the optimizer, the schedule, the losses, the tasks, several workers.

Optimizer, schedule and losses import no TensorFlow; flags belong to `commands`, files to `runs`.
"""
