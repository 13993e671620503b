"""What VAEs are trained against: pixels, perceived likeness, a discriminator's verdict, and a bound on the latents."""
