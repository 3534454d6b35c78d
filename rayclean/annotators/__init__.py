"""Who answers when asked about a doubtful label. Add one: a file with a subclass of `Annotator`, a line here."""

ANNOTATORS: dict[str, str] = {
    "served": "rayclean.annotators.served:ServedAnnotator",
    "openai": "rayclean.annotators.openai:OpenAIAnnotator",
    "knn": "rayclean.annotators.knn:KnnAnnotator",
    "simulated": "rayclean.annotators.simulated:SimulatedAnnotator",
}
