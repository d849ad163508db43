"""`vinegrape publish` and `vinegrape fetch`: versions of archives in a folder or bucket, and channels."""
