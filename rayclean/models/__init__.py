"""Networks that read text. Add one: a file with a subclass of `Encoder`, a line here."""

ENCODERS: dict[str, str] = {
    "transformer": "rayclean.models.transformer:TransformerEncoder",
    "bilstm": "rayclean.models.bilstm:BiLSTMEncoder",
    "bag_of_words": "rayclean.models.bag_of_words:BagOfWordsEncoder",
}
