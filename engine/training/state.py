"""Where a run stands."""

import torch

from engine.recipe.optimizer import load_optimizer


def capture(trainer) -> dict:
    """All that changes while a Trainer runs, gradients not yet applied among it. Random state is none: see seed_step."""
    gradients = {k: p.grad for k, p in trainer.model.named_parameters() if p.grad is not None}
    return {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.model.state_dict(),
        "updates": trainer.ema.updates,
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "gradients": gradients,
        "epoch": trainer.epoch,
        "batches_done": trainer.batches_done,
        "mean_losses": trainer.mean_losses.cpu(),
        "last_update": trainer.last_update,
        "best_fitness": trainer.best_fitness,
        "best_epoch": trainer.best_epoch,
        "class_maps": torch.from_numpy(trainer.class_maps),
        "results": trainer.results,
    }


def restore(trainer, data: dict) -> None:
    """Put a freshly set-up Trainer where ``capture`` found the other."""
    trainer.model.load_state_dict(data["model"])
    trainer.ema.model.load_state_dict(data["ema"])
    trainer.ema.updates = data["updates"]
    load_optimizer(trainer.optimizer, data["optimizer"])
    if data["scaler"]:  # empty where the run had no mixed precision
        trainer.scaler.load_state_dict(data["scaler"])
    for name, parameter in trainer.model.named_parameters():
        if name in data["gradients"]:
            parameter.grad = data["gradients"][name].to(trainer.device)
    trainer.mean_losses = data["mean_losses"].to(trainer.device)
    trainer.class_maps = data["class_maps"].numpy()
    for name in ("epoch", "batches_done", "last_update", "best_fitness", "best_epoch", "results"):
        setattr(trainer, name, data[name])
