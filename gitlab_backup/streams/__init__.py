"""Bytes only, no word of GitLab: codecs, digests, programs in a pipeline, tar archives, durable files."""
