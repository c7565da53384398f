"""Optional: checked steps inside other people's training loops; nothing else in fxcheck imports these modules."""
