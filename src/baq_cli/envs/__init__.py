"""Gymnasium environments: making, seeding, vectors, spaces."""
