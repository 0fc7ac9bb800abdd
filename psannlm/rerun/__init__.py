"""Measuring a published row again: is it inside its interval here and now?"""
