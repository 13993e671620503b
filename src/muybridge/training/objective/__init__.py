"""What a denoising network is trained against: noise levels, noise, targets and the terms of the loss."""
