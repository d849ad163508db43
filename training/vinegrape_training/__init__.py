"""Images to weights to archive. It imports what it needs lazily: serving environments have `click` alone."""
