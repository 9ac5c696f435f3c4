"""What a report shows beside report.json: raw samples, counts per image, masks, embeddings and confidences."""
