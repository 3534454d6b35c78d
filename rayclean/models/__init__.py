"""Networks that read text. Add one: a file with a subclass of `Encoder`, a line here."""

from typing import TYPE_CHECKING

from rayclean.plugins import Family

if TYPE_CHECKING:
    from rayclean.models.base import Encoder

ENCODERS: "Family[Encoder]" = Family(
    "encoder",
    {
        "transformer": "rayclean.models.transformer:TransformerEncoder",
        "bilstm": "rayclean.models.bilstm:BiLSTMEncoder",
        "bag_of_words": "rayclean.models.bag_of_words:BagOfWordsEncoder",
    },
)
