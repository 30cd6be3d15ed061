"""What Chinese verse is measured by: rhyme groups and tones of characters, tonal patterns, the forms of tunes."""
