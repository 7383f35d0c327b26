"""Somebody who may act in the policy's place: what they are told, what they want, their devices."""
