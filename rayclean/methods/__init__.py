"""How to train in spite of label noise. Add a method: a file with a subclass of `Method`, a line here."""

METHODS: dict[str, str] = {
    "cross_entropy": "rayclean.methods.cross_entropy:CrossEntropy",
}
