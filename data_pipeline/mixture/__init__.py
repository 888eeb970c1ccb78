"""Tokenizes and packs documents, and describes the mixture that SeqIO and training read."""
