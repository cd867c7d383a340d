"""Training: masked-language-model pretraining and what belongs to it."""

from .pretrain import TrainingRun, evaluate_mlm, train_mlm

__all__ = ["TrainingRun", "evaluate_mlm", "train_mlm"]
