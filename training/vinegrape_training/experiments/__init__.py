"""Cross-validation, comparison, search, and measurements of training speed and quantisation."""
