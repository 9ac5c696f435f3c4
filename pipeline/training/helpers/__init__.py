"""Networks that help a network to learn and ship nowhere: a mean teacher on unlabelled images, a larger teacher."""
