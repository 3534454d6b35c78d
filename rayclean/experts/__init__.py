"""Experts of self-prediction: different views of an example, each of which says what its label probably is.

An expert turns examples and their given labels into a distribution over the K classes for every example, made
without the label of that example. The classifier on an encoder's features is one; here are two that cost no
training of a network: the labels of the most similar texts (`neighbours`) and a linear model of the words
(`words`). A label error that one view repeats, another view often does not, so the mean of their distributions
ranks wrong labels better than any of them (Breiman, "Stacked regressions", 1996, on why experts that err
differently are worth averaging).

Every expert keeps three promises. The row of an example does not depend on its own given label. It does not
depend on the order of the rows, nor on how they are divided into shards. No probability is 0, so that
logarithms exist and a temperature can be fitted.
"""
