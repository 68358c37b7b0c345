"""The model of learning curves: a Gaussian process over configuration and epoch."""
