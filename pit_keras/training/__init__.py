"""How a model is trained: configuration, recipes, optimizer, schedule, losses and the trainer."""
