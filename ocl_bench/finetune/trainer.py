"""transformers' Trainer, with loss on labelled positions alone and checkpoints that give back every bit."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer
from transformers.optimization import Adafactor

from ocl_bench.errors import RunFailed
from ocl_bench.finetune.adafactor import ForeachAdafactor
from ocl_bench.finetune.checkpoints import EpochCheckpoints, Progress
from ocl_bench.finetune.loss import LabelledLoss
from ocl_bench.finetune.sampler import NOTHING
from ocl_bench.finetune.sharding import Sharded, set_whole_state, whole_state
from ocl_bench.models.batches import Datapoint
from ocl_bench.models.group import processes, rank, smallest, total

WEIGHTS, OPTIMIZER, SCHEDULER = "model.safetensors", "optimizer.pt", "scheduler.pt"  # files of a checkpoint
NO_STEP = 2**62
FEW_TOKENS = 128  # of a sequence: up to there plain attention in bf16 is faster on a CPU, and its tables are small
MOST_DRAWS = 2**31  # of one training, so that no two seeds show the same scans


class StageDataset(Dataset[Datapoint]):
    """The datapoints of a stage, encoded once. Counts those that were drawn, and their tokens.

    Args:
        datapoints: of the stage.
        seed: of the training: decides which scans a picture shows, others each time.
        drawn: how many were drawn before.
    """

    def __init__(self, datapoints: Sequence[Datapoint], seed: int = 0, drawn: int = 0) -> None:
        self.datapoints = datapoints
        self.real_tokens = 0
        self._seed, self._drawn = seed, drawn

    def __len__(self) -> int:
        return len(self.datapoints)

    def __getitem__(self, number: int) -> Datapoint:
        if number == NOTHING:
            return replace(self.datapoints[0], label_start=len(self.datapoints[0].target))
        one = self.datapoints[number]
        self.real_tokens += one.real_tokens
        self._drawn += 1
        if one.shown is None:
            return one
        return replace(one, shown=replace(one.shown, draw=(self._seed * MOST_DRAWS + self._drawn) % 2**62))


class LossWatch:
    """Remembers the last loss, and the first optimizer step whose loss was no number, on the device: nothing waits."""

    def __init__(self, device: torch.device) -> None:
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._loss, self._of = torch.zeros((), device=device), 0

    def see(self, loss: Tensor, step: int) -> None:
        """Look at a micro-batch's loss of the step with this number, from 1."""
        self._step = torch.where(loss.isfinite() | (self._step > 0), self._step, step)
        self._loss = self._loss + loss if step == self._of else loss
        self._of = step

    def last(self) -> float:
        """Loss of the last step, of this process's share of it. Waits for the device."""
        return float(self._loss)

    def first_bad_step(self) -> int:
        """Number of the first step whose loss was no number, in any process; 0 for none. Waits for the device."""
        step = smallest(int(self._step) or NO_STEP)
        return 0 if step == NO_STEP else step


class StageTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose output layer sees labelled positions only, and whose loss is the mean over them.

    Args:
        sampler: the order of the datapoints.
        watch: is shown the loss of every micro-batch.
        checkpoints: where checkpoints go.
        progress: gives what a checkpoint is sealed with.
        sharded: the model, if it is sharded over processes; None if this one trains it alone.
    """

    # The loss is divided by the labelled positions of the whole optimizer step, so accumulation changes nothing. Batch
    # norms, which take each micro-batch for a batch, are the exception.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,
        sampler: Sampler[int],
        watch: LossWatch,
        checkpoints: EpochCheckpoints,
        progress: Callable[[], Progress],
        sharded: Sharded | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sharded = sharded
        self.sampler, self.watch = sampler, watch
        self.checkpoints, self.progress = checkpoints, progress
        self.labelled = LabelledLoss(self.model)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        """As the Trainer's; of several processes, each takes what its own sampler gives, and nothing is dealt anew."""
        if self.sharded is None:
            return super().get_train_dataloader()  # type: ignore[no-any-return]
        return DataLoader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            sampler=self.sampler,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """The optimizer that the recipe names, Adafactor by our own faster steps."""
        optimizer, arguments = Trainer.get_optimizer_cls_and_kwargs(args, model)
        return ForeachAdafactor if optimizer is Adafactor else optimizer, arguments

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Parameters that decay: scales of norms do not, and the Trainer knows layer norms alone by their kind."""
        norms = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        scales = {f"{name}.weight" for name in norms}
        return [name for name in super().get_decay_parameter_names(model) if name not in scales]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimizer step, and how many labelled positions those of all processes hold."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        count = torch.tensor(total(sum(batch["targets"].numel() for batch in batches)), device=device)
        return batches, count

    def training_step(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of one micro-batch; its loss."""
        with self._attention(inputs):
            loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        self.watch.see(loss, self.state.global_step + 1)
        return loss

    def _attention(self, inputs: dict[str, Tensor]) -> contextlib.AbstractContextManager[None]:
        """On a CPU the fused kernel's backward pass takes several times as long as plain products, of few tokens."""
        longest = max((ids.shape[1] for name, ids in inputs.items() if name.endswith("input_ids")), default=0)
        if self.args.bf16 and self.args.device.type == "cpu" and longest <= FEW_TOKENS:
            return sdpa_kernel(SDPBackend.MATH)
        return contextlib.nullcontext()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        """Mean cross-entropy over the labelled positions of the optimizer step (this micro-batch's share of it)."""
        assert num_items_in_batch is not None and not return_outputs, "only training goes through the Trainer"
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        loss = self.labelled.loss(model, inputs, positions, targets, num_items_in_batch)
        # Gradients are averaged over processes, and are to be summed up.
        return loss if self.sharded is None else loss * processes()

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not counted: the Trainer's estimate walks over all parameters in every step."""
        return 0

    def _get_output_dir(self, trial: Any) -> str:
        # Trackers write to args.output_dir, which is not where checkpoints go.
        return str(self.checkpoints.folder)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        progress = self.progress()
        try:
            super()._save_checkpoint(model, trial)
            total(0)  # all have written
            if rank() == 0:
                self.checkpoints.seal(self.checkpoints.path(self.state.global_step), progress)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise RunFailed(
                f"{self.checkpoints.folder}: the checkpoint of epoch {progress.epoch} cannot be written "
                f"({(str(error).strip() or type(error).__name__).splitlines()[0]}); make room on the disk."
            ) from error

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights under their names in memory.

        `save_pretrained` writes some architectures (mixtures of experts) under the hub's names and in the hub's parts,
        where loading a state would pass them over.
        """
        assert output_dir is not None
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        model = self.model if self.sharded is None else self.sharded.whole()
        if rank() == 0:
            safetensors.torch.save_model(model, str(Path(output_dir, WEIGHTS)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: the model has these weights, by `load_weights`, since before it was sharded."""

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharded is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = whole_state(self.optimizer.optimizer)
        if rank() == 0:
            torch.save(state, Path(output_dir, OPTIMIZER))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.sharded is not None:
            state, schedule = (
                torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True, mmap=True)
                for name in (OPTIMIZER, SCHEDULER)
            )
            set_whole_state(self.optimizer.optimizer, state)
            self.lr_scheduler.load_state_dict(schedule)
            return
        super()._load_optimizer_and_scheduler(checkpoint)
        # torch gives an optimizer's state the dtype of the weights, which rounds Adafactor's if they are bfloat16.
        saved = torch.load(Path(checkpoint, OPTIMIZER), map_location="cpu", weights_only=True)["state"]
        parameters = [one for group in self.optimizer.param_groups for one in group["params"]]
        for number, values in saved.items():
            loaded = self.optimizer.state[parameters[number]]
            for name, value in values.items():
                if isinstance(value, Tensor) and loaded[name].dtype != value.dtype:
                    loaded[name] = value.to(loaded[name].device)


def load_weights(model: nn.Module, checkpoint: Path) -> None:
    """Give a whole model the weights of a checkpoint."""
    safetensors.torch.load_model(model, checkpoint / WEIGHTS)
