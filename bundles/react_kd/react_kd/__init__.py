"""REACT-KD: region-aware distillation of a dual teacher into a light CT student (arXiv 2508.02104)."""
