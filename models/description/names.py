"""What the project's own blocks are called, here and in write-ups."""

# the file of each block as the project has it
SHIPPED = {
    **dict.fromkeys(
        "Conv DWConv DWConvTranspose2d GhostConv MixConv2d CrossConv Focus Bottleneck GhostBottleneck SPP SPPF C3SPP "
        "BottleneckCSP C3 C3x C3TR C3Ghost Contract Expand Concat stem FusedMBConv MBConv ShuffleNetV2_InvertedResidual "
        "Conv_maxpool UniversalInvertedBottleneckBlock C3_UIB".split(),
        "models.common",
    ),
    **dict.fromkeys(
        "SE CBAM CoordAtt ECA SOCA SimAM MobileMQA C3SE C3CBAM C3CoordAtt C3ECA C3SOCA C3SimAM C3MobileMQA".split(),
        "models.blocks.attention",
    ),
    "MobileNetV3_InvertedResidual": "models.blocks.mobilenet",
    "GhostNetBottleneck": "models.blocks.ghostnet",
    **dict.fromkeys(("MP", "SP", "SPPCSPC", "RepConv"), "models.blocks.yolov7"),
}
# classes that these are made of
INNER = {"DropPath", "SqueezeExcite_efficientv2", "TransformerBlock", "TransformerLayer"}
# what write-ups call some of them
ALIASES = {
    "CoordAtt": ("CA", "CoordAttention", "CoorAttention", "CoordAttn", "CABlock", "CoordinateAttention"),
    "SE": ("SELayer", "SEAttention", "SEBlock", "SE_Block", "SEModule", "SqueezeExcite", "SE_Layer"),
    "CBAM": ("CBAMBlock", "CBAM_Block", "cbam", "CBAMs"),
    "ECA": ("ECAAttention", "eca_layer", "ECALayer", "ECABlock", "ECANet", "EfficientChannelAttention"),
    "SimAM": ("simam_module", "SimAm", "SimAM_module", "Simam"),
    "UniversalInvertedBottleneckBlock": ("UIB", "UniversalInvertedBottleneck", "UIBBlock"),
    "MobileNetV3_InvertedResidual": ("MobileNet_Block", "MobileNetV3_Block", "mobilev3_bneck", "MobileNetV3Block"),
    "ShuffleNetV2_InvertedResidual": ("Shuffle_Block", "ShuffleBlock", "InvertedResidual", "ShuffleNetV2Block"),
    "Conv_maxpool": ("conv_bn_relu_maxpool", "CBRM", "ConvMaxpool"),
    "nn.Upsample": ("Upsample", "UpSample"),
    "Contract": ("ReOrg", "space_to_depth"),
}
# what a message about an unknown block ends with
PLACES = "A block of your own goes into models/common.py and BLOCKS of models/yolo.py, or into a file that is given by --plugins"
