"""Pictures and pages, made from tables alone: nothing here runs a model."""
