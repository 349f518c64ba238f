"""What backends are asked to find out whether they are still right: texts to score and questions with known answers.

Depends on nothing but the standard library. `texts.py` loads the texts, `questions.py` makes the questions.
"""
