"""Topics of documents: clusters of a sample, and the nearest cluster of every document."""
