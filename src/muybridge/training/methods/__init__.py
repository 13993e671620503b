"""What is trained, and against which loss. A method is a module whose forward turns a batch into a loss.

Only parameters with `requires_grad` are trained; the rest is frozen and in evaluation mode.
"""
