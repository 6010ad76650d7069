"""Pictures of the pages in `docs`, each made by a command of its own."""
