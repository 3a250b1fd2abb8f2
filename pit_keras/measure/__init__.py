"""What networks cost: throughput, latency, memory, and sweeps over networks of equal cost.

Accuracy belongs to `evaluation`; counts of parameters and MACs to `models.cost`.
"""
