"""A vision backbone with a head that says a whole answer at once: a token for each of its positions.

To the rest of the suite it is a language model that reads pixels instead of a prompt. Any backbone that transformers'
AutoModel loads gets the head; what comes out of it is one vector a picture, its own pooled one where it has one.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

LIKELY_SIDE = 224  # pixels that most backbones take which do not say


class PictureReaderConfig(PretrainedConfig):  # type: ignore[misc]
    """Configuration of a `PictureReader`.

    Args:
        backbone_config: that of the backbone, as a dictionary with its `model_type`.
        vocab_size: words that answers are made of.
        answer_length: tokens of the longest answer, with its end.
        places: rows and columns of places that the head looks at, of what the backbone says of each; 0 for one vector
            a picture.
        head_sizes: units of the head's hidden layers; none for a linear head.
    """

    model_type = "picture_reader"

    def __init__(
        self,
        backbone_config: dict[str, Any] | None = None,
        vocab_size: int = 16,
        answer_length: int = 5,
        places: int = 0,
        head_sizes: Sequence[int] = (),
        **kwargs: Any,
    ) -> None:
        self.backbone_config = backbone_config or {}
        self.vocab_size, self.answer_length = vocab_size, answer_length
        self.places, self.head_sizes = places, list(head_sizes)
        super().__init__(**kwargs)

    def backbone(self) -> Any:
        """The backbone's configuration."""
        own = dict(self.backbone_config)
        return AutoConfig.for_model(own.pop("model_type"), **own)


class PictureReader(PreTrainedModel):  # type: ignore[misc]
    """Reads pictures, and says answers."""

    config_class = PictureReaderConfig
    main_input_name = "pixel_values"

    def __init__(self, config: PictureReaderConfig) -> None:
        super().__init__(config)
        own = config.backbone()
        self.backbone = AutoModel.from_config(own)
        self.channels: int = getattr(own, "num_channels", 3)
        patch = getattr(own, "patch_size", 1)
        self.patch: int = patch if isinstance(patch, int) else max(patch)
        # Models with a position for each patch make as many as a picture has.
        resized = "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters
        self.options = {"interpolate_pos_encoding": True} if resized else {}
        features = self._width(own)
        outputs = config.answer_length * config.vocab_size
        self.head = nn.Sequential()
        for size in config.head_sizes:
            self.head.extend([nn.Linear(features, size), nn.ReLU()])
            features = size
        self.head.append(nn.Linear(features, outputs))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Of the head; the backbone has its own way."""
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False, **kwargs: Any) -> CausalLMOutput:
        """Logits of shape (pictures, answer_length, vocab_size), of pixels of shape (pictures, 1, height, width).

        Hidden states are the backbone's.
        """
        height, width = pixel_values.shape[2:]
        whole = nn.functional.pad(pixel_values, (0, -width % self.patch, 0, -height % self.patch))
        asked = {**self.options, "output_hidden_states": True} if output_hidden_states else self.options
        found = self.backbone(pixel_values=whole.expand(-1, self.channels, -1, -1).to(self.dtype), **asked)
        logits = self.head(self._features(found).flatten(1)).unflatten(1, (self.config.answer_length, -1))
        return CausalLMOutput(logits=logits, hidden_states=getattr(found, "hidden_states", None))

    def _width(self, own: Any) -> int:
        """Features of a picture: whatever the backbone calls it, its outputs have this shape, seen without weights."""
        side = getattr(own, "image_size", None) or LIKELY_SIDE
        height, width = (side, side) if isinstance(side, int) else side
        with torch.device("meta"), torch.no_grad():
            found = AutoModel.from_config(own).eval()(pixel_values=torch.empty(1, self.channels, height, width))
        return self._features(found).flatten(1).shape[1]

    def _features(self, found: Any) -> Tensor:
        if self.config.places:
            return nn.functional.adaptive_avg_pool2d(found.last_hidden_state, self.config.places)
        pooled: Tensor | None = getattr(found, "pooler_output", None)
        if pooled is not None:
            return pooled
        last: Tensor = found.last_hidden_state
        return last.mean(dim=1) if last.dim() == 3 else last.mean(dim=(2, 3))


AutoConfig.register(PictureReaderConfig.model_type, PictureReaderConfig)
AutoModelForCausalLM.register(PictureReaderConfig, PictureReader)
