"""KIF-ISD: chest X-ray reports by a knowledge graph and self-distillation (doi 10.3390/app152010974)."""
