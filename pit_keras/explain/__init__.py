"""What a network looks at: spatial interaction (figure 5), attention rollout, a token pooling.

Pictures of it belong to `plots`, accuracies to `evaluation`.
"""
