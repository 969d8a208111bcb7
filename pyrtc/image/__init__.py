"""Images: their names, documents, archives, and how they get into the store."""
