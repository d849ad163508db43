"""Networks: any timm model by name, and the small CNN baseline."""
