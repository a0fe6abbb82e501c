"""Parts of classifiers: modules of Inception."""
