"""Cross-validation, comparison, tuning, and measurements of training and quantisation."""
