"""Experts: probabilities of every example's label by models that did not learn that label, and their mean."""
