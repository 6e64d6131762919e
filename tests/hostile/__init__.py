"""Hostile: what somebody who took over a part of Fleet can do with it, and that its normal work needs all it may."""
