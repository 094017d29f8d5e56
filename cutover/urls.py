from django.urls import include, path

from cutover.pages.adjust import Adjust, New
from cutover.pages.base import Current
from cutover.pages.confirm import Confirm
from cutover.pages.emergency import DeclareUnitDead
from cutover.pages.lists import History, Start
from cutover.pages.notices import Banners
from cutover.pages.overview import Overview, OverviewFigures
from cutover.pages.precheck import Checks, Precheck
from cutover.pages.preview import PreviewPage, RulesPage
from cutover.pages.progress import Progress, Status
from cutover.pages.report import Report, ReportFile
from cutover.pages.shifting import ShiftShown

cutover_patterns = [
    path("", Start.as_view(), name="start"),
    path("history/", History.as_view(), name="history"),
    path("new/", New.as_view(), name="new"),
    path("shift/", ShiftShown.as_view(), name="shift"),
    path("<int:pk>/", Current.as_view(), name="cutover"),
    path("<int:pk>/adjust/", Adjust.as_view(), name="adjust"),
    path("<int:pk>/preview/", PreviewPage.as_view(), name="preview"),
    path("<int:pk>/rules/", RulesPage.as_view(), name="rules"),
    path("<int:pk>/precheck/", Precheck.as_view(), name="precheck"),
    path("<int:pk>/precheck/checks/", Checks.as_view(), name="checks"),
    path("<int:pk>/confirm/", Confirm.as_view(), name="confirm"),
    path("<int:pk>/progress/", Progress.as_view(), name="progress"),
    path("<int:pk>/report/", Report.as_view(), name="report"),
    path("<int:pk>/report.json", ReportFile.as_view(), name="report-file"),
    path("<int:pk>/declare-dead/<str:unit>/", DeclareUnitDead.as_view(), name="declare-dead"),
    path("<int:pk>/status/", Status.as_view(), name="status"),
]

urlpatterns = [
    # Here, not in units, because the overview shows what all three apps know.
    path("", Overview.as_view(), name="overview"),
    path("overview/figures/", OverviewFigures.as_view(), name="overview-figures"),
    path("banners/", Banners.as_view(), name="banners"),
    path("cutover/", include((cutover_patterns, "cutover"))),
]
