"""From encoded bytes to the pixels that the network gets; training reads its images in the same way."""
