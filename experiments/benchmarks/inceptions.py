"""GoogLeNet's inception modules as its paper lists them, for the peers in Keras and in PyTorch."""

# #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj: Szegedy et al. 2014, Table 1
INCEPTIONS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
