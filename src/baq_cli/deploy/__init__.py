"""Acting with a trained policy, without training."""
