"""KIF-ISD: chest X-ray reports from a knowledge graph, refined by self-distillation (doi 10.3390/app152010974)."""
