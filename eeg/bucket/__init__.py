"""Releases in public S3 buckets: listing, downloading, and reading parts of recordings."""
