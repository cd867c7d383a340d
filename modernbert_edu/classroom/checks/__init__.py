"""The checks under the exercises, one file a lesson: `checks.check_NAME(your_function)`; machinery.py says how."""

from .alternating import *  # noqa: F403
from .extension import *  # noqa: F403
from .finetuning import *  # noqa: F403
from .geglu import *  # noqa: F403
from .growth import *  # noqa: F403
from .head_to_head import *  # noqa: F403
from .prenorm import *  # noqa: F403
from .pretraining import *  # noqa: F403
from .retrieval import *  # noqa: F403
from .rope import *  # noqa: F403
from .tokenizer import *  # noqa: F403
from .tour import *  # noqa: F403
from .unpadding import *  # noqa: F403
from .vanilla_bert import *  # noqa: F403
