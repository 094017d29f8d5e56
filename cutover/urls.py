from django.urls import include, path

from cutover import views
from cutover.lists import History, Start
from cutover.notices import Banners
from cutover.overview import Overview, OverviewFigures

cutover_patterns = [
    path("", Start.as_view(), name="start"),
    path("history/", History.as_view(), name="history"),
    path("new/", views.New.as_view(), name="new"),
    path("<int:pk>/", views.Current.as_view(), name="cutover"),
    path("<int:pk>/adjust/", views.Adjust.as_view(), name="adjust"),
    path("<int:pk>/preview/", views.PreviewPage.as_view(), name="preview"),
    path("<int:pk>/rules/", views.RulesPage.as_view(), name="rules"),
    path("<int:pk>/precheck/", views.Precheck.as_view(), name="precheck"),
    path("<int:pk>/precheck/checks/", views.Checks.as_view(), name="checks"),
    path("<int:pk>/confirm/", views.Confirm.as_view(), name="confirm"),
    path("<int:pk>/progress/", views.Progress.as_view(), name="progress"),
    path("<int:pk>/report/", views.Report.as_view(), name="report"),
    path("<int:pk>/status/", views.Status.as_view(), name="status"),
]

urlpatterns = [
    # Here, not in units, because the overview shows what all three apps know.
    path("", Overview.as_view(), name="overview"),
    path("overview/figures/", OverviewFigures.as_view(), name="overview-figures"),
    path("banners/", Banners.as_view(), name="banners"),
    path("cutover/", include((cutover_patterns, "cutover"))),
]
