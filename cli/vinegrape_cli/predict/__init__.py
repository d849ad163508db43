"""`vinegrape predict`: classify files and folders."""
