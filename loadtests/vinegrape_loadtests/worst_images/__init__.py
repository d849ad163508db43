"""The worst images that the limits of a worker allow: how they are drawn, and what each costs."""
